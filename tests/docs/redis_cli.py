"""Replaces `redis-cli` where there is none: `-s SOCKET` or `-u URL`, and one command."""

import sys

from redis import Redis


def main(option: str, place: str, *command: str) -> None:
    redis = Redis(unix_socket_path=place) if option == "-s" else Redis.from_url(place)
    answer = redis.execute_command(*command)  # type: ignore[no-untyped-call]
    sys.stdout.write((answer.decode() if isinstance(answer, bytes) else str(answer)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
