"""The gdb source: stops on fences, satp writes and table stores."""
