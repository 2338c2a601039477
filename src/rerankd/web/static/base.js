// The server's base path: a proxy may serve it under a prefix.

/** Without a trailing slash. */
export const BASE = import.meta.url.slice(0, import.meta.url.lastIndexOf("/static/"));
