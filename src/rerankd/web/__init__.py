"""The pages for people: playground, rates, keys, usage, administration. Plain HTML, one style sheet, no build step."""
