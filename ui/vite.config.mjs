import { defineConfig } from "vite";

// The page is served by the binary itself under "default-src 'self'": nothing
// inline, no data: addresses, no other host.
export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2023",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: false,
    reportCompressedSize: false,
    sourcemap: false,
  },
});
