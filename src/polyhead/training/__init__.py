"""One site's model and how it is trained; knows nothing of other sites."""
