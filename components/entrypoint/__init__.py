"""What the containers of a cluster start: `python -m components.entrypoint` for a node, `.notify` for the exit step."""
