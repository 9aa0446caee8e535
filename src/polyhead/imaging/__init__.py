"""From a site's image files to one array of 8-bit squares. Knows no labels, no training and no other site."""
