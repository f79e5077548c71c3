"""What a kernel's files tell: images, initial RAM disks, symbols."""
