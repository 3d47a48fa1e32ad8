"""Is my optimizer right? Two in lock-step, and one against its contract."""
