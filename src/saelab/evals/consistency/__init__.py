"""Does changing the latents that tell a concept change what the concept decides?"""
