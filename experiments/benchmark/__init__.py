"""How fast it is, against what no code avoids."""
