// page.mjs SUMMARY PICTURE: a step summary as GitHub shows it, by Chromium.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { marked } from "marked";
import { chromium } from "playwright-core";

const [summary, picture] = process.argv.slice(2);
const css = createRequire(import.meta.url).resolve("github-markdown-css/github-markdown-light.css");
const page = `<!doctype html>
<meta charset="utf-8">
<style>
  ${readFileSync(css, "utf8")}
  body { margin: 0; background: #fff }
  .markdown-body { display: inline-block; padding: 16px 24px 8px; font-size: 14px }
</style>
<article class="markdown-body">${marked.parse(readFileSync(summary, "utf8"), { gfm: true })}</article>`;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // A container's root can't make Chromium's sandbox; the page is our own.
  args: process.getuid() === 0 ? ["--no-sandbox"] : [],
});
const tab = await browser.newPage({ viewport: { width: 1280, height: 720 }, deviceScaleFactor: 1.4, offline: true });
await tab.setContent(page);
await tab.locator("article").screenshot({ path: picture });
await browser.close();
