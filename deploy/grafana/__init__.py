"""Grafana dashboards, written by a program so that they stay alike and can be checked."""
