"""Cameras, rays and the planes of a triplane: what the model may import; imports only the errors of the runtime."""
