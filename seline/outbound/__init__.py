"""What leaves this process: alerts to people, a sign of life, and exports to other places."""
