"""Files that hold a guest's memory: dumps, RAM images, traces."""
