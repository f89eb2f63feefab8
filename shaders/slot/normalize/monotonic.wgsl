// Monotonic attention at inference: which key a row takes depends on the rows before it; `staged_monotonic` finds it.
