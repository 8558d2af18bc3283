"""What happens outside that a recipe has to answer: data that lands."""
