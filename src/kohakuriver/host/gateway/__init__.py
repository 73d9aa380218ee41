"""The SSH gateway: an SSH server that opens connections to VPSs and does nothing else.

| module | has |
| --- | --- |
| `late_gateway` | the gateway as the host holds it, with its host key |
| `gateway` | the SSH server, the look at rights every second |
| `login_limiter` | how many may be at their login at once |
| `tcp_connection` | what a TCP connection meets before it is an SSH connection |
| `ssh_connection` | one SSH connection: who it is, what it asks for |
| `vps_access`, `opening` | which VPSs somebody may enter, and by which names |
| `client_line` | one forwarded connection at the client's end |
"""
