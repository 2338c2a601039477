"""The pages for people: playground, prices, keys, usage, administration. Plain HTML, one style sheet, no build step."""
