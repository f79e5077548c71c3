"""From what a user asked for to a checked plan."""
