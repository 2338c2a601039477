// The server's base path: a proxy may serve it under a prefix.

/** Without a trailing slash. */
export const BASE = new URL("..", import.meta.url).href.slice(0, -1);
