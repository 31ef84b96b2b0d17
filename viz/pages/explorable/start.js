// The same script is the page and, started once more from its own text, the worker beside it.
if (typeof document === "undefined") serve();
else begin();
