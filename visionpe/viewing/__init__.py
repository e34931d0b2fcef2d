"""Looking at what goes into models and comes out."""
