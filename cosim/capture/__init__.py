"""Event sources: what turns a running guest into a stream of events."""
