/* The release this tree becomes. */
#ifndef CHATMUX_BASE_VERSION_H
#define CHATMUX_BASE_VERSION_H

#define CM_VERSION "0.1.0"

#endif
