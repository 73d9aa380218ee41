"""The control plane at the sizes it is made for: many runners, long queues, a long past, many who look on."""
