// Where the server is: a proxy may have it under a path of its own.

/** Without a slash at the end. */
export const BASE = new URL("..", import.meta.url).href.slice(0, -1);
