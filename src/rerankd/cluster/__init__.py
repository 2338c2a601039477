"""Engines on Ray: replicas of one model behind this server's front. Only this folder imports ray."""
