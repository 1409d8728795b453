"""The HTTP server: OpenAI's image endpoints, an endpoint for every use, and the page."""
