"""From operations to Locust's numbers."""
