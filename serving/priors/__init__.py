"""What the asker already knows: filters as text and as HTTP parameters, and a soft prior for the ranking."""
