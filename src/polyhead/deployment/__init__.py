"""Hospitals in houses of their own: what server and site do, whatever engine carries their messages."""
