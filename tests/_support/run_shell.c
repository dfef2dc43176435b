/*
 * run_shell.c - what system and popen start after clearenv: run_shell COMMAND prints what it prints, by each, and the status of system.
 */
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **words) {
    char text[4096];
    if (count != 2 || clearenv() != 0)
        return 2;
    int status = system(words[1]);
    FILE *stream = popen(words[1], "r");
    size_t bytes = stream ? fread(text, 1, sizeof text, stream) : 0;
    fwrite(text, 1, bytes, stdout);
    printf("%d %d\n", status, stream ? pclose(stream) : -1);
    setenv("LD_PRELOAD", "libm.so.6", 1);
    fflush(stdout);
    return system("echo \"$LD_PRELOAD\"");
}
