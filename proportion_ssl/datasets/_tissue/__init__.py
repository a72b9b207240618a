"""How synthetic tissue is drawn."""
