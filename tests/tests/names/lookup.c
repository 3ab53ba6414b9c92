/* Looks a name up as applications do, and prints how it went: milliseconds, the code of getaddrinfo(3), addresses. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static double milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

int main(int count, char **words)
{
    struct addrinfo hints, *found = NULL, *each;
    char text[INET6_ADDRSTRLEN];
    double start;
    int code;

    if (count != 2)
        return 2;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    start = milliseconds();
    code = getaddrinfo(words[1], NULL, &hints, &found);
    printf("%.0f %d", milliseconds() - start, code);
    for (each = found; each != NULL; each = each->ai_next) {
        const void *address = each->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)each->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)each->ai_addr)->sin6_addr;
        printf(" %s", inet_ntop(each->ai_family, address, text, sizeof text));
    }
    printf("\n");
    return 0;
}
