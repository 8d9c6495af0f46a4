"""HTTP around the service: the guard, tokens, routes, schemas, the page's files."""
