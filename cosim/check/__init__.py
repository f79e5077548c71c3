"""The fence checker as people meet it: verdicts, names, suppressions, reports."""
