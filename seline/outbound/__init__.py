"""What this process sends elsewhere: alerts, heartbeats, exports."""
