"""Pusher: publishes a blessed model into the registry."""
