"""What runs inside the guest: sources and recipes."""
