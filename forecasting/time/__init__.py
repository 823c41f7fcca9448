"""Time: stamps as counts of steps, frequencies, calendars, sessions."""
