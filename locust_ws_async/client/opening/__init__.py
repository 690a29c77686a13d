"""From a URL to an open connection."""
