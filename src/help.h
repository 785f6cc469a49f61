/* What `chatmux help` prints. */
#ifndef CHATMUX_HELP_H
#define CHATMUX_HELP_H

/* Of a command, an adapter type, "config", or (NULL) everything in short, on standard output. -1: there is no such topic. */
int help_print(const char *topic);

#endif
