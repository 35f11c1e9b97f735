"""Devices and processes: many as one."""
