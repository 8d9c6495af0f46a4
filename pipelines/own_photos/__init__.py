"""What a store's own photos say about the radius of its places."""
