"""Commands run by processes apart: a host, a supervisor for each run, and its shell.

    host          started once; forks a supervisor for each run, in about a millisecond
    supervisor    starts the shell with less rights, keeps time and output, and ends all of it
    slots         a number, a lock and a private directory for each run
    rights        what the shell may do
    ending        finding and killing what a run started
    job           what is asked and answered

Only the standard library is imported here: what is small is quickly forked. The server, the host
and the supervisors hold the ends of sockets to each other; whoever sees one close ends what is his.
"""
