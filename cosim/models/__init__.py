"""The models over a stream of events, and the result document."""
