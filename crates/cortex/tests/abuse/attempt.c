/* What a command attempts behind walls. Each argument is KIND:WHAT; each is answered by one line,
   the argument and an errno, 0 when it succeeded. Compiled by the tests of rows 42 to 44. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int opened(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? errno : 0;
}

/* ADDRESS/PORT. Waits a second at most; then it is ETIMEDOUT. */
static int tcp(const char *at, int *connected)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	char address[64];
	const char *port = strchr(at, '/');
	if (!port || (size_t)(port - at) >= sizeof address)
		return EINVAL;
	memcpy(address, at, port - at);
	address[port - at] = 0;
	to.sin_port = htons(atoi(port + 1));
	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		return EINVAL;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno;
	if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
		return errno;
	struct pollfd one = {.fd = fd, .events = POLLOUT};
	if (poll(&one, 1, 1000) != 1)
		return ETIMEDOUT;
	int error = 0;
	socklen_t size = sizeof error;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	*connected = fd;
	return error;
}

/* Connects, and asks without a token. The answer's first line is printed first. */
static int asked(const char *at)
{
	int fd, error = tcp(at, &fd);
	if (error)
		return error;
	char host[64];
	snprintf(host, sizeof host, "%s", at);
	*strchr(host, '/') = ':';
	dprintf(fd, "GET /api/v1/nodes HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n", host);
	struct pollfd one = {.fd = fd, .events = POLLIN};
	char answer[256] = "";
	if (poll(&one, 1, 5000) == 1 && read(fd, answer, sizeof answer - 1) > 0) {
		answer[strcspn(answer, "\r\n")] = 0;
		for (char *c = answer; *c; c++)
			if (*c < ' ' || *c > '~')
				*c = '?';
		printf("answer %s\n", answer);
	}
	return 0;
}

static int unix_socket(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return errno;
	strncpy(to.sun_path, path, sizeof to.sun_path - 1);
	return connect(fd, (struct sockaddr *)&to, sizeof to) ? errno : 0;
}

/* Forks twice, leaves its session, hears no signal, and writes into a file for ever. */
static int haunt(const char *path)
{
	if (fork())
		return 0;
	setsid();
	if (fork())
		_exit(0);
	for (int number = 1; number < 32; number++)
		signal(number, SIG_IGN);
	close(0), close(1), close(2);
	for (;;) {
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (fd >= 0 && write(fd, "alive", 5) == 5)
			close(fd);
		usleep(20000);
	}
}

int main(int argc, char **argv)
{
	setvbuf(stdout, 0, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		char *what = strchr(argv[i], ':');
		int fd, error = EINVAL;
		if (!what)
			return 2;
		what++;
		if (!strncmp(argv[i], "read:", 5))
			error = opened(what, O_RDONLY);
		else if (!strncmp(argv[i], "write:", 6))
			error = opened(what, O_WRONLY);
		else if (!strncmp(argv[i], "tcp:", 4))
			error = tcp(what, &fd);
		else if (!strncmp(argv[i], "ask:", 4))
			error = asked(what);
		else if (!strncmp(argv[i], "unix:", 5))
			error = unix_socket(what);
		else if (!strncmp(argv[i], "haunt:", 6))
			error = haunt(what);
		else if (!strncmp(argv[i], "stay:", 5)) {
			signal(SIGTERM, SIG_IGN);
			error = 0;
			sleep(atoi(what));
		}
		printf("%s %d\n", argv[i], error);
	}
	return 0;
}
