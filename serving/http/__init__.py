"""HTTP of the service: guard, uploads, tokens, routes, schemas, static files."""
