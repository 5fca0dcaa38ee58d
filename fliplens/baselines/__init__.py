"""What a lens is compared with: yardsticks that are trained, read and measured in the same way."""
