"""What GPU backends share: device memory, the captured sampling loop, the backend itself."""
