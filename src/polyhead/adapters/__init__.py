"""From a hospital's or a public data set's own files to a manifest: one function for each layout."""
