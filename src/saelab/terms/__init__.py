"""Loss terms: functions of a `Step` that return a scalar."""
